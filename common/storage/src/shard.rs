//! The format of a packed data set: shards (tars of samples) and their index.
