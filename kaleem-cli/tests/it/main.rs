//! Scripted sessions with the real program, the real engine and a real registry: one file a story.

#[cfg(test)]
mod sandbox;
#[cfg(test)]
mod redact;
#[cfg(test)]
mod story;
#[cfg(test)]
mod stories;
