//! What a new implementation of zero-copy receive must not get wrong: each module is one kind of
//! hazard known from t4_tom and from the generic path.

mod budget;
mod cancel;
mod end;
mod gone;
mod help;
mod pages;
mod readers;
mod shortage;
mod silent;
mod sizes;
mod vectored;
mod window;
