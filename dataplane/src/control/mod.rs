//! The control thread's part: from kernel state to what workers and program forward by.

pub mod view;
