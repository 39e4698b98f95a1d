//! TODO xsk
