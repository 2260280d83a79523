//! What must hold in a region at any time.

use std::vec::Vec;

use super::{NIL, Node, Region, priority};

impl<S: AsRef<[Node]> + AsMut<[Node]>> Region<S> {
    /// Every free run by walking the storage, after checking tags, tree and totals against it.
    pub(crate) fn check(&self) -> Vec<(u32, u32)> {
        let mut runs = Vec::new();
        let mut at = 0;
        let mut was_free = false;
        while at < self.n {
            let tag = self.node(at).tag;
            assert!(tag.len() > 0, "run of nothing at {at}");
            assert_eq!(
                self.node(at + tag.len() - 1).tag,
                tag,
                "tags differ at {at}"
            );
            assert!(!(was_free && tag.free()), "two free runs meet at {at}");
            was_free = tag.free();
            if tag.free() {
                runs.push((at, tag.len()));
            }
            at += tag.len();
        }
        assert_eq!(at, self.n);
        assert_eq!(self.free, runs.iter().map(|r| r.1).sum::<u32>());
        let mut in_tree = Vec::new();
        let mut stack = std::vec![(self.root, (0, 0), (u32::MAX, u32::MAX), 0)];
        while let Some((at, lo, hi, depth)) = stack.pop() {
            if at == NIL {
                continue;
            }
            assert!(depth < 200, "tree too deep");
            let key = self.key(at);
            assert!(lo <= key && key < hi, "tree out of order");
            for child in [self.node(at).left, self.node(at).right] {
                assert!(child == NIL || priority(child) <= priority(at));
            }
            in_tree.push((at, key.0));
            stack.push((self.node(at).left, lo, key, depth + 1));
            stack.push((self.node(at).right, key, hi, depth + 1));
        }
        in_tree.sort_unstable();
        assert_eq!(in_tree, runs, "tree and storage disagree");
        runs
    }
}
