//! Asynchronous I/O as vfs_aio.c does it.
