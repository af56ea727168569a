//! A boot sector of our own, for whoever needs a guest that is up in a second.

/// Prints a text on COM1 and on the screen, then waits for a key on COM1 and repeats it for ever.
pub fn boot_sector() -> Vec<u8> {
    const TEXT: &[u8] = b"HELLO FROM SECTOR 0\r\n\0";
    let mut code = vec![
        0xfa, // cli
        0x31, 0xc0, // xor ax, ax
        0x8e, 0xd8, // mov ds, ax
        0xbe, 0x00, 0x7d, // mov si, 0x7d00
        // next:
        0xac, // lodsb
        0x84, 0xc0, // test al, al
        0x74, 0x0c, // jz echo
        0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0xee, // out dx, al
        0xb4, 0x0e, // mov ah, 0x0e
        0x31, 0xdb, // xor bx, bx
        0xcd, 0x10, // int 0x10
        0xeb, 0xef, // jmp next
        // echo:
        0xba, 0xfd, 0x03, // mov dx, 0x3fd
        0xec, // in al, dx
        0xa8, 0x01, // test al, 1
        0x74, 0xf8, // jz echo
        0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0xec, // in al, dx
        0xee, // out dx, al
        0xeb, 0xf1, // jmp echo
    ];
    code.resize(0x100, 0);
    code.extend_from_slice(TEXT);
    code.resize(510, 0);
    code.extend_from_slice(&[0x55, 0xaa]);
    code
}
