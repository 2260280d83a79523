//! The network side: sockets, socket buffers, TCP's usrreqs, TOE core, interfaces.
