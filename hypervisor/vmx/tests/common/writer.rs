//! A boot sector that writes to the first disk: each letter that comes on COM1 fills its first sector and is
//! sent back; `r` sends the letter that the sector holds; `h` powers off. What fails is sent back as `!`.

use std::path::Path;

const CODE: &[u8] = &[
    0x31, 0xc0, // xor ax, ax
    0x8e, 0xd8, // mov ds, ax
    0x8e, 0xc0, // mov es, ax
    0x8e, 0xd0, // mov ss, ax
    0xbc, 0x00, 0x7c, // mov sp, 0x7c00
    0xfc, // cld
    0xb0, b'>', // mov al, '>'
    // put:
    0xba, 0xf8, 0x03, // mov dx, 0x3f8
    0xee, // out dx, al
    // get:
    0xba, 0xfd, 0x03, // mov dx, 0x3fd
    0xec, // in al, dx
    0xa8, 0x01, // test al, 1
    0x74, 0xf8, // jz get
    0xba, 0xf8, 0x03, // mov dx, 0x3f8
    0xec, // in al, dx
    0x3c, b'h', // cmp al, 'h'
    0x74, 0x38, // je halt
    0x3c, b'r', // cmp al, 'r'
    0x74, 0x18, // je read
    0xbf, 0x00, 0x80, // mov di, 0x8000
    0xb9, 0x00, 0x02, // mov cx, 512
    0xf3, 0xaa, // rep stosb
    0x89, 0xc5, // mov bp, ax
    0xb8, 0x01, 0x03, // mov ax, 0x0301
    0xe8, 0x17, 0x00, // call disk
    0x89, 0xe8, // mov ax, bp
    0x73, 0xd4, // jnc put
    0xb0, b'!', // mov al, '!'
    0xeb, 0xd0, // jmp put
    // read:
    0xb8, 0x01, 0x02, // mov ax, 0x0201
    0xe8, 0x09, 0x00, // call disk
    0xa0, 0x00, 0x80, // mov al, [0x8000]
    0x73, 0xc5, // jnc put
    0xb0, b'!', // mov al, '!'
    0xeb, 0xc1, // jmp put
    // disk:
    0xbb, 0x00, 0x80, // mov bx, 0x8000
    0xb9, 0x01, 0x00, // mov cx, 1
    0xba, 0x80, 0x00, // mov dx, 0x80
    0xfb, // sti
    0xcd, 0x13, // int 0x13
    0xc3, // ret
    // halt:
    0xba, 0x04, 0x06, // mov dx, 0x604
    0xb8, 0x00, 0x20, // mov ax, 0x2000
    0xef, // out dx, ax
    0xeb, 0xf7, // jmp halt
];

/// Makes the floppy in `directory`; returns the lines of a .vmx with it, a serial port, and the disk `ide0:0`
/// in `a.vmdk`.
pub fn writer(directory: &Path) -> String {
    let mut image = CODE.to_vec();
    image.resize(510, 0);
    image.extend_from_slice(&[0x55, 0xaa]);
    image.resize(1440 * 1024, 0);
    std::fs::write(directory.join("writer.img"), image).unwrap();
    "floppy0.fileType = \"file\"\nfloppy0.fileName = \"writer.img\"\nserial0.present = \"TRUE\"\n\
     ide0:0.present = \"TRUE\"\nide0:0.fileName = \"a.vmdk\"\n"
        .to_owned()
}
