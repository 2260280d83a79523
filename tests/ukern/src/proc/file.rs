//! Open files and descriptor tables. Sockets are the only kind of file.

use crate::kmem;
use crate::kp::Kp;
use crate::ksym::KData;
use crate::net::{k, socket};
use crate::proc::process::with_state;
use crate::proc::{Errno, Sys};
use crate::{kpanic, sys};

pub(crate) static M_FILE: KData = KData::of::<sys::malloc_type>("ukern_M_FILE").with_init(|p| {
    let mut t: Kp<sys::malloc_type> = Kp::new(p.cast());
    t.ks_version = u64::from(sys::M_VERSION);
    t.ks_shortdesc = c"file".as_ptr();
});

/// A process's descriptors, by number.
#[derive(Default)]
pub(crate) struct Table {
    slots: Vec<Option<Kp<sys::file>>>,
}

impl Table {
    /// The lowest free number gets the file (its reference moves here).
    fn install(&mut self, fp: Kp<sys::file>, limit: usize) -> Sys<i32> {
        let i = self
            .slots
            .iter()
            .position(Option::is_none)
            .unwrap_or(self.slots.len());
        if i >= limit {
            return Err(Errno::EMFILE);
        }
        if i == self.slots.len() {
            self.slots.push(None);
        }
        self.slots[i] = Some(fp);
        Ok(i as i32)
    }

    fn get(&self, fd: i32) -> Sys<Kp<sys::file>> {
        let i = usize::try_from(fd).map_err(|_| Errno::EBADF)?;
        self.slots.get(i).copied().flatten().ok_or(Errno::EBADF)
    }

    fn take(&mut self, fd: i32) -> Sys<Kp<sys::file>> {
        let i = usize::try_from(fd).map_err(|_| Errno::EBADF)?;
        self.slots
            .get_mut(i)
            .and_then(Option::take)
            .ok_or(Errno::EBADF)
    }

    /// The child's table after fork(2): the same open files.
    pub(crate) fn share(&self) -> Table {
        for fp in self.slots.iter().flatten() {
            let mut fp = *fp;
            fp.f_count += 1;
        }
        Table {
            slots: self.slots.clone(),
        }
    }

    pub(crate) fn drain(&mut self) -> Vec<Kp<sys::file>> {
        std::mem::take(&mut self.slots)
            .into_iter()
            .flatten()
            .collect()
    }
}

/// A file around a socket, whose reference moves to the file; one reference.
pub(crate) fn for_socket(so: Kp<sys::socket>) -> Kp<sys::file> {
    let mut fp: Kp<sys::file> = kmem::alloc_zeroed(&M_FILE);
    fp.f_count = 1;
    fp.f_flag = sys::FREAD | sys::FWRITE;
    fp.f_type = sys::DTYPE_SOCKET as i16;
    fp.f_cred = k::crhold(so.so_cred);
    fp.f_data = so.ptr().cast();
    fp
}

/// Installs a file in a process; on failure the file is closed.
pub(crate) fn install(p: Kp<sys::proc_>, fp: Kp<sys::file>) -> Sys<i32> {
    let r = with_state(p, |s| {
        let limit = s.nofile;
        s.files.install(fp, limit)
    });
    if r.is_err() {
        fdrop(fp);
    }
    r
}

/// `fget`: the open file of a descriptor, referenced.
pub(crate) fn fget(p: Kp<sys::proc_>, fd: i32) -> Sys<Kp<sys::file>> {
    let mut fp = with_state(p, |s| s.files.get(fd))?;
    fp.f_count += 1;
    Ok(fp)
}

/// `fdrop`: the last reference closes the socket. May sleep (SO_LINGER).
pub(crate) fn fdrop(mut fp: Kp<sys::file>) {
    if fp.f_count == 0 {
        kpanic!("fdrop: file {:#x} has no references", fp.addr());
    }
    fp.f_count -= 1;
    if fp.f_count > 0 {
        return;
    }
    if let Some(so) = Kp::<sys::socket>::opt(fp.f_data.cast()) {
        fp.f_data = std::ptr::null_mut();
        socket::close(so);
    }
    k::crfree(fp.f_cred);
    kmem::free_obj(fp, &M_FILE);
}

/// close(2).
pub(crate) fn close(p: Kp<sys::proc_>, fd: i32) -> Sys<()> {
    let fp = with_state(p, |s| s.files.take(fd))?;
    fdrop(fp);
    Ok(())
}

/// dup(2).
pub(crate) fn dup(p: Kp<sys::proc_>, fd: i32) -> Sys<i32> {
    let fp = fget(p, fd)?;
    install(p, fp)
}

/// The socket behind a descriptor, kept by the file reference returned with it.
pub(crate) fn getsock(p: Kp<sys::proc_>, fd: i32) -> Sys<(Kp<sys::file>, Kp<sys::socket>)> {
    let fp = fget(p, fd)?;
    match Kp::<sys::socket>::opt(fp.f_data.cast()) {
        Some(so) => Ok((fp, so)),
        None => {
            fdrop(fp);
            Err(Errno::ENOTSOCK)
        }
    }
}
