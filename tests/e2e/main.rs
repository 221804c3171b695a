//! Stories over real daemons on loopback: what a person would see, told with
//! the command line, files that jobs wrote, and the event stream. One file per
//! story; nothing here knows the inside of a daemon.
