//! TODO netns
