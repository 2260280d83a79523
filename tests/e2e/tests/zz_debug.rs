use std::sync::Arc;
use toehold_e2e::bed::Bed;
use toehold_e2e::pattern;
use toehold_e2e::transfer::{self, Shape};
#[test]
fn dbg() {
    let bed = Bed::up(1);
    let o = transfer::run(&bed, Arc::new(pattern::bytes(1, 0, 2000000)), Shape::default());
    println!("{o:?}");
    for (n, v) in bed.k.sysctl_tree("dev.t5nex.0.sim") { println!("{n}: {v}"); }
    println!("{:?}", bed.stats());
}
