//! What a new implementation of zero-copy transmit must not get wrong: each module is one kind of
//! hazard known from t4_tom and from the generic path.

mod cancel;
mod credits;
mod exit;
mod help;
mod left;
mod order;
mod pages;
mod parked;
mod patience;
mod results;
mod shortage;
mod sizes;
mod sleeping;
