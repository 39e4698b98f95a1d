//! `nsplane run`.
