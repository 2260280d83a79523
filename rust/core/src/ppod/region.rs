//! Allocator of the page-pod region: best fit, O(log n), no heap.
//!
//! Free runs are the nodes of a treap ordered by (length, start); the node of a run lives in
//! the storage entry of its first pod. Boundary tags at both ends of every run, free or taken,
//! let a returned run coalesce with its neighbours in constant time. Priorities are a hash of
//! the start, so the expected depth is logarithmic whatever is asked for.
//!
//! Not locked: the caller holds the adapter's page-pod mutex around every method.

use super::Ppods;

const NIL: u32 = u32::MAX;

/// Storage of one page pod; 12 bytes. Opaque; made by [`Default`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Node {
    /// Length of the run this entry is the first or last of, and whether that is free.
    tag: Tag,
    left: u32,
    right: u32,
}

/// Boundary tag: length << 1 | free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tag(u32);

impl Tag {
    fn new(len: u32, free: bool) -> Tag {
        Tag(len << 1 | u32::from(free))
    }
    fn len(self) -> u32 {
        self.0 >> 1
    }
    fn free(self) -> bool {
        self.0 & 1 != 0
    }
}

/// A place in the tree that names a node.
#[derive(Clone, Copy)]
enum Link {
    Root,
    Left(u32),
    Right(u32),
}

/// The region. `S` is storage of one [`Node`] per page pod.
#[derive(Debug)]
pub struct Region<S> {
    nodes: S,
    n: u32,
    root: u32,
    free: u32,
}

impl<S: AsRef<[Node]> + AsMut<[Node]>> Region<S> {
    /// All pods free. As many pods as `nodes` has entries, at most 2^24.
    pub fn new(nodes: S) -> Region<S> {
        let n = u32::try_from(nodes.as_ref().len())
            .unwrap_or(u32::MAX)
            .min(1 << 24);
        let mut r = Region {
            nodes,
            n,
            root: NIL,
            free: 0,
        };
        if n > 0 {
            r.put_free(0, n);
            r.free = n;
        }
        r
    }

    /// Take a run of `n` pods: the shortest free run that has as many, the lowest of those.
    /// `None` if there is none, or `n` is 0.
    pub fn alloc(&mut self, n: u32) -> Option<Ppods> {
        if n == 0 || n > self.free {
            return None;
        }
        let at = self.lower_bound(n)?;
        let have = self.node(at).tag.len();
        self.remove(have, at);
        if have > n {
            self.put_free(at + n, have - n);
        }
        self.set_tags(at, n, false);
        self.free -= n;
        Some(Ppods { first: at, n })
    }

    /// Give a run back. A run that is not of this region, or not taken, is ignored.
    pub fn free(&mut self, p: Ppods) {
        let Ppods { first, n } = p;
        let end = first.checked_add(n).filter(|e| n > 0 && *e <= self.n);
        let Some(end) = end else { return };
        if self.node(first).tag != Tag::new(n, false) {
            return;
        }
        self.free += n;
        let (mut at, mut len) = (first, n);
        if end < self.n && self.node(end).tag.free() {
            let next = self.node(end).tag.len();
            self.remove(next, end);
            len += next;
        }
        if first > 0 && self.node(first - 1).tag.free() {
            let before = self.node(first - 1).tag.len();
            at -= before;
            len += before;
            self.remove(before, at);
        }
        self.put_free(at, len);
    }

    /// Pods free.
    #[must_use]
    pub fn available(&self) -> u32 {
        self.free
    }

    /// Pods in all.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.n
    }

    /// Longest free run.
    #[must_use]
    pub fn largest(&self) -> u32 {
        let mut at = self.root;
        let mut best = 0;
        while at != NIL {
            best = self.node(at).tag.len();
            at = self.node(at).right;
        }
        best
    }

    fn node(&self, i: u32) -> Node {
        let at = usize::try_from(i).unwrap_or(usize::MAX);
        self.nodes.as_ref().get(at).copied().unwrap_or_default()
    }

    fn edit(&mut self, i: u32, f: impl FnOnce(&mut Node)) {
        let at = usize::try_from(i).unwrap_or(usize::MAX);
        if let Some(n) = self.nodes.as_mut().get_mut(at) {
            f(n);
        }
    }

    fn set_tags(&mut self, at: u32, len: u32, free: bool) {
        let tag = Tag::new(len, free);
        self.edit(at, |n| n.tag = tag);
        self.edit(at + len - 1, |n| n.tag = tag);
    }

    fn put_free(&mut self, at: u32, len: u32) {
        self.set_tags(at, len, true);
        self.insert(len, at);
    }

    fn follow(&self, l: Link) -> u32 {
        match l {
            Link::Root => self.root,
            Link::Left(i) => self.node(i).left,
            Link::Right(i) => self.node(i).right,
        }
    }

    fn point(&mut self, l: Link, to: u32) {
        match l {
            Link::Root => self.root = to,
            Link::Left(i) => self.edit(i, |n| n.left = to),
            Link::Right(i) => self.edit(i, |n| n.right = to),
        }
    }

    fn key(&self, at: u32) -> (u32, u32) {
        (self.node(at).tag.len(), at)
    }

    /// The least free run of at least `n` pods.
    fn lower_bound(&self, n: u32) -> Option<u32> {
        let mut at = self.root;
        let mut best = None;
        while at != NIL {
            let node = self.node(at);
            if node.tag.len() >= n {
                best = Some(at);
                at = node.left;
            } else {
                at = node.right;
            }
        }
        best
    }

    fn insert(&mut self, len: u32, at: u32) {
        let key = (len, at);
        let mut link = Link::Root;
        let mut cur = self.root;
        while cur != NIL && priority(cur) >= priority(at) {
            link = if key < self.key(cur) {
                Link::Left(cur)
            } else {
                Link::Right(cur)
            };
            cur = self.follow(link);
        }
        // Split what hangs here into what is less and what is greater than the new key.
        self.point(link, at);
        let mut less = Link::Left(at);
        let mut more = Link::Right(at);
        while cur != NIL {
            if self.key(cur) < key {
                self.point(less, cur);
                less = Link::Right(cur);
                cur = self.node(cur).right;
            } else {
                self.point(more, cur);
                more = Link::Left(cur);
                cur = self.node(cur).left;
            }
        }
        self.point(less, NIL);
        self.point(more, NIL);
    }

    fn remove(&mut self, len: u32, at: u32) {
        let key = (len, at);
        let mut link = Link::Root;
        let mut cur = self.root;
        while cur != NIL && cur != at {
            link = if key < self.key(cur) {
                Link::Left(cur)
            } else {
                Link::Right(cur)
            };
            cur = self.follow(link);
        }
        if cur == NIL {
            return;
        }
        // Merge its two subtrees into its place.
        let Node {
            mut left,
            mut right,
            ..
        } = self.node(at);
        loop {
            if left == NIL {
                self.point(link, right);
                return;
            }
            if right == NIL {
                self.point(link, left);
                return;
            }
            if priority(left) >= priority(right) {
                self.point(link, left);
                link = Link::Right(left);
                left = self.node(left).right;
            } else {
                self.point(link, right);
                link = Link::Left(right);
                right = self.node(right).left;
            }
        }
    }
}

fn priority(at: u32) -> u32 {
    let mut x = at ^ 0x9e37_79b9;
    x = (x ^ (x >> 16)).wrapping_mul(0x85eb_ca6b);
    x = (x ^ (x >> 13)).wrapping_mul(0xc2b2_ae35);
    x ^ (x >> 16)
}

#[cfg(test)]
mod tests;
