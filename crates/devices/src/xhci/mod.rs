//! The USB 3 host controller with the register interface of xHCI 1.0. Specification: Intel xHCI
//! for USB, revision 1.2.
//!
//! The model `xhci`, for `-device ...-xhci,p2=15,p3=15,id=usb`.

mod controller;
mod events;
mod registers;
mod slots;
mod transfers;
mod trb;

pub use controller::MODELS;
