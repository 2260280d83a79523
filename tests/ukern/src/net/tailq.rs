//! `TAILQ`s as `<sys/queue.h>` lays them out: modules walk and change the very same lists.

use std::marker::PhantomData;

use crate::kp::{Kp, peek, poke};

/// A tail queue: the address of its head, and where in an element the links lie.
pub(crate) struct Tailq<T> {
    head: usize,
    link: usize,
    elem: PhantomData<*mut T>,
}

impl<T> Clone for Tailq<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Tailq<T> {}

const PTR: usize = size_of::<usize>();

/// The queue at `$head` (a place behind a raw pointer) of `$t`s linked through `$field`.
macro_rules! tailq {
    ($head:expr, $t:ty, $($field:tt)+) => {
        $crate::net::tailq::Tailq::<$t>::at(($head).addr(), std::mem::offset_of!($t, $($field)+))
    };
}
pub(crate) use tailq;

impl<T> Tailq<T> {
    /// The queue whose head (first, last) is at `head`, with links at byte `link` of an element.
    pub(crate) fn at(head: usize, link: usize) -> Self {
        Tailq {
            head,
            link,
            elem: PhantomData,
        }
    }

    /// `TAILQ_INIT`.
    pub(crate) fn init(self) {
        poke(self.head, 0usize);
        poke(self.head + PTR, self.head);
    }

    /// `TAILQ_FIRST`, `None` when empty.
    pub(crate) fn first(self) -> Option<Kp<T>> {
        Kp::opt(peek::<*mut T>(self.head))
    }

    /// `TAILQ_EMPTY`.
    pub(crate) fn is_empty(self) -> bool {
        self.first().is_none()
    }

    /// `TAILQ_NEXT`.
    pub(crate) fn next(self, e: Kp<T>) -> Option<Kp<T>> {
        Kp::opt(peek::<*mut T>(e.addr() + self.link))
    }

    /// `TAILQ_INSERT_TAIL`.
    pub(crate) fn push_back(self, e: Kp<T>) {
        let last: usize = peek(self.head + PTR);
        poke(e.addr() + self.link, 0usize);
        poke(e.addr() + self.link + PTR, last);
        poke(last, e.addr());
        poke(self.head + PTR, e.addr() + self.link);
    }

    /// `TAILQ_INSERT_HEAD`.
    pub(crate) fn push_front(self, e: Kp<T>) {
        let first: usize = peek(self.head);
        poke(e.addr() + self.link, first);
        if first != 0 {
            poke(first + self.link + PTR, e.addr() + self.link);
        } else {
            poke(self.head + PTR, e.addr() + self.link);
        }
        poke(self.head, e.addr());
        poke(e.addr() + self.link + PTR, self.head);
    }

    /// `TAILQ_REMOVE`, checked: the links must agree, as QUEUE_MACRO_DEBUG would have it.
    pub(crate) fn remove(self, e: Kp<T>) {
        let next: usize = peek(e.addr() + self.link);
        let prev: usize = peek(e.addr() + self.link + PTR);
        if prev == 0 || prev == usize::MAX || peek::<usize>(prev) != e.addr() {
            crate::kpanic!(
                "TAILQ_REMOVE of {:#x} ({}), which is on no list here",
                e.addr(),
                std::any::type_name::<T>()
            );
        }
        if next != 0 {
            poke(next + self.link + PTR, prev);
        } else {
            poke(self.head + PTR, prev);
        }
        poke(prev, next);
        // What `TRASHIT` does: a second removal is caught.
        poke(e.addr() + self.link, usize::MAX);
        poke(e.addr() + self.link + PTR, usize::MAX);
    }

    /// Takes the first element off.
    pub(crate) fn pop_front(self) -> Option<Kp<T>> {
        let e = self.first()?;
        self.remove(e);
        Some(e)
    }

    /// The elements as they stand now.
    pub(crate) fn to_vec(self) -> Vec<Kp<T>> {
        let mut all = Vec::new();
        let mut at = self.first();
        while let Some(e) = at {
            all.push(e);
            at = self.next(e);
        }
        all
    }

    /// Is `e` on this queue?
    pub(crate) fn contains(self, e: Kp<T>) -> bool {
        let mut at = self.first();
        while let Some(x) = at {
            if x == e {
                return true;
            }
            at = self.next(x);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(C)]
    struct Item {
        id: u32,
        next: usize,
        prev: usize,
    }

    fn queue(head: &mut [usize; 2]) -> Tailq<Item> {
        let q = Tailq::at(head.as_ptr() as usize, std::mem::offset_of!(Item, next));
        q.init();
        q
    }

    #[test]
    fn order_insertion_and_removal() {
        let mut head = [7usize; 2];
        let q = queue(&mut head);
        let mut items: Vec<Item> = (0..4)
            .map(|id| Item {
                id,
                next: 0,
                prev: 0,
            })
            .collect();
        let p: Vec<Kp<Item>> = items.iter_mut().map(|i| Kp::new(i)).collect();
        assert!(q.is_empty());
        q.push_back(p[1]);
        q.push_back(p[2]);
        q.push_front(p[0]);
        q.push_back(p[3]);
        let ids = |q: Tailq<Item>| q.to_vec().iter().map(|e| e.id).collect::<Vec<_>>();
        assert_eq!(ids(q), [0, 1, 2, 3]);
        q.remove(p[3]);
        q.remove(p[0]);
        assert_eq!(ids(q), [1, 2]);
        assert!(q.contains(p[2]) && !q.contains(p[3]));
        q.push_back(p[0]);
        assert_eq!(q.pop_front().map(|e| e.id), Some(1));
        assert_eq!(ids(q), [2, 0]);
    }
}
