//! TODO api
