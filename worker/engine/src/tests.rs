//! Tests of whole steps.
