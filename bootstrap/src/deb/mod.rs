//! Debian packages of the agent.
//!
//! | file | holds |
//! | --- | --- |
//! | `package.rs` | a file: what a launch has to know of one before it hands it to instances |
//! | `carried.rs` | the packages that come with this program |

pub(crate) use carried::CarriedPackages;
pub(crate) use package::Deb;

mod carried;
mod package;
