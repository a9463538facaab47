//! The engine agrees with the functions that decide, whatever the mesh and the question.

mod generated;
mod told;
mod unkept;
mod waypoints;
