//! Tests of the whole crate; the table of broken manifests is shared with the tests on a running mesh.

mod broken;
mod good;
mod loose;
mod mesh;
mod robust;
mod served;
mod set;
