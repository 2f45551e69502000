//! See `parts` of src/fuzz.rs.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| trytond_fastbus::fuzz::parts(data));
