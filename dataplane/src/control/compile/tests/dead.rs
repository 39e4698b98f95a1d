//! Next hops that the kernel holds for dead.

use super::*;

#[test]
fn a_dead_next_hop_of_a_device_that_is_up_leaves_the_choice_to_the_kernel() {
    let hops = [hop(1, Some("10.0.0.9")), hop(2, Some("10.1.0.9"))];
    let dead = [Hop { dead: true, ..hops[0] }, hops[1]];
    let c = run(&with([route("10.5.0.0/16", &hops), route("10.6.0.0/16", &dead)]));
    assert_ne!(ours(at(&c, "10.5.0.1")), Some(NextHop::Kernel));
    assert_eq!(ours(at(&c, "10.6.0.1")), Some(NextHop::Kernel));
}
