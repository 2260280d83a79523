//! core at both ends of a simulated adapter.
