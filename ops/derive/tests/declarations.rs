//! Declarations that must not compile, each with the message that its author reads.

#[test]
fn wrong_declarations_are_explained() {
    trybuild::TestCases::new().compile_fail("tests/fail/*.rs");
}
