//! Looks into a stopped host's journal, for the one promise that is about it.
