//! From compose text to typed definitions.
