//! Named scenarios: what must work, and the hazards of notes/upstream.md that concern core.

mod basic;
mod help;
