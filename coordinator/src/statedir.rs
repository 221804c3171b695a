//! Where everything of one coordinator lies, and who may use it.
