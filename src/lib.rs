//! Baton: a Kubernetes operator for Pods that hold something.
#![cfg_attr(not(feature = "core"), allow(unused))]
