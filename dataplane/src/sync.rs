//! Publication: one writer's value, whole, to many readers.
