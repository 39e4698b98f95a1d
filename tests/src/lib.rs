//! The lab: namespaces, veth pairs and processes that tests and the demo use.
