//! One live connection of an agent.
