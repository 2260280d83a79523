//! Named scenarios: what must work, and the hazards of offloaded AIO that concern core, each by
//! name. Every one ends with both ends closed and nothing left anywhere.

mod basic;
mod cancel;
mod credits;
mod fallout;
mod fin;
mod help;
mod parked;
mod shortage;
mod silent;
mod sizes;
mod teardown;
mod txcredits;
