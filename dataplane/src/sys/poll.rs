//! TODO poll
