//! Address spaces: maps, objects, faults, held pages.
