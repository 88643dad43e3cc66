//! The retry rule: whether and when a failed attempt is followed by another. Pure arithmetic on arguments.
