//! The tests' own AWS is as strict as AWS: each rule that the front adds to moto, tried by itself.

mod balancing;
mod front;
mod instances;
mod place;
mod policies;
mod visibility;
