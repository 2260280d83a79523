//! The C entry points of malloc(9).

use std::ffi::c_void;

use super::{KMEM, M_WAITOK, alloc, free, malloc};
use crate::kp::{self, Kp, bytes, bytes_mut};
use crate::lowmem::PAGE;
use crate::names::intern;
use crate::{kpanic, sys};

extern "C" fn c_malloc(size: usize, type_: usize, flags: i32) -> *mut u8 {
    malloc(size, type_, flags)
}

extern "C" fn c_malloc_aligned(size: usize, align: usize, type_: usize, flags: i32) -> *mut u8 {
    alloc(size, align, type_, flags, true)
}

extern "C" fn c_malloc_domainset(
    size: usize,
    type_: usize,
    _ds: *const c_void,
    flags: i32,
) -> *mut u8 {
    malloc(size, type_, flags)
}

extern "C" fn c_mallocarray(n: usize, size: usize, type_: usize, flags: i32) -> *mut u8 {
    match n.checked_mul(size) {
        Some(len) => malloc(len, type_, flags),
        None => kpanic!("mallocarray: {n} times {size} overflows"),
    }
}

extern "C" fn c_realloc(old: *mut u8, size: usize, type_: usize, flags: i32) -> *mut u8 {
    let new = malloc(size, type_, flags);
    if !old.is_null() && !new.is_null() {
        let had = KMEM.with(|k| k.live.get(&(old as usize)).map_or(0, |a| a.size));
        let n = had.min(size);
        bytes_mut(new, n).copy_from_slice(bytes(old, n));
        free(old, type_);
    }
    new
}

extern "C" fn c_free(addr: *mut u8, type_: usize) {
    free(addr, type_);
}

extern "C" fn c_zfree(addr: *mut u8, type_: usize) {
    free(addr, type_);
}

extern "C" fn c_contigmalloc(
    size: usize,
    type_: usize,
    flags: i32,
    _low: u64,
    _high: u64,
    align: usize,
    _boundary: u64,
) -> *mut u8 {
    alloc(size, align.max(PAGE), type_, flags, true)
}

extern "C" fn c_contigfree(addr: *mut u8, _size: usize, type_: usize) {
    free(addr, type_);
}

extern "C" fn c_usable_size(addr: usize) -> usize {
    KMEM.with(|k| k.live.get(&addr).map_or(0, |a| a.size))
}

extern "C" fn c_strdup(s: *const std::ffi::c_char, type_: usize) -> *mut u8 {
    let text = kp::cstr(s);
    let p = malloc(text.len() + 1, type_, M_WAITOK);
    let to = bytes_mut(p, text.len() + 1);
    to[..text.len()].copy_from_slice(text.as_bytes());
    to[text.len()] = 0;
    p
}

extern "C" fn malloc_init(type_: Kp<sys::malloc_type>) {
    if type_.ks_version != u64::from(sys::M_VERSION) {
        kpanic!("malloc_init: wrong ks_version");
    }
}

extern "C" fn malloc_uninit(type_: Kp<sys::malloc_type>) {
    let left = KMEM.with(|k| k.types.get(&type_.addr()).map(|s| (s.live, s.bytes)));
    if let Some((live, sz)) = left
        && live > 0
    {
        let name = intern(&kp::cstr(type_.ks_shortdesc));
        crate::console::write(&format!(
            "Warning: memory type {name} leaked memory on destroy ({live} allocations, {sz} bytes leaked).\n"
        ));
        // The type's own memory goes away with the module; the leak stays on the books.
    }
}

crate::exports! {
    "malloc" => c_malloc,
    "malloc_aligned" => c_malloc_aligned,
    "malloc_domainset" => c_malloc_domainset,
    "mallocarray" => c_mallocarray,
    "realloc" => c_realloc,
    "free" => c_free,
    "zfree" => c_zfree,
    "contigmalloc" => c_contigmalloc,
    "contigfree" => c_contigfree,
    "malloc_usable_size" => c_usable_size,
    "strdup" => c_strdup,
    "malloc_init" => malloc_init,
    "malloc_uninit" => malloc_uninit,
}
