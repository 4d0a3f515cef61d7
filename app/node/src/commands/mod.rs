//! One file a command.

pub(crate) mod dev;
pub(crate) mod model;
