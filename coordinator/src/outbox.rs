//! Performs the farm's effects on live sessions.
