//! What is wrong in a file is said with its place.
