//! ukern
pub mod sys;
pub mod net; pub mod aio; pub mod vm; pub mod proc;
