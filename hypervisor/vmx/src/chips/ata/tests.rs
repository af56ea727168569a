use super::*;
use proptest::prelude::*;

fn channel() -> Ata {
    Ata::new([Some(Unit::disk(10_000, (9, 16, 63), "1".into())), Some(Unit::cd(Some(100), "2".into()))])
}

fn registers(ata: &mut Ata, device: u8, count: u8, lba: u32, command: u8) {
    ata.write(6, device | (lba >> 24) as u8 & 0x0f);
    for (register, value) in [(2, count), (3, lba as u8), (4, (lba >> 8) as u8), (5, (lba >> 16) as u8)] {
        ata.write(register, value);
    }
    ata.write(7, command);
}

fn data(ata: &mut Ata, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    for word in bytes.chunks_mut(2) {
        ata.read_data(word);
    }
    bytes
}

#[test]
fn identify() {
    let mut ata = channel();
    ata.write(7, 0xec);
    assert!(ata.irq());
    assert_eq!(ata.read(7), DRDY | DSC | DRQ);
    assert!(!ata.irq());
    let bytes = data(&mut ata, 512);
    assert_eq!(u32::from_le_bytes(bytes[120..124].try_into().unwrap()), 10_000);
    assert_eq!(&bytes[54..58], b"mves");
    assert_eq!(ata.read(7), DRDY | DSC);
}

#[test]
fn reading_asks_sector_by_sector() {
    let mut ata = channel();
    registers(&mut ata, 0xe0, 2, 9_998, 0x20);
    for sector in [9_998, 9_999] {
        assert_eq!(ata.request(), Some(&Request::Read { unit: 0, sector, count: 1 }));
        assert_eq!(ata.read(7) & BSY, BSY);
        ata.finish(Ok(vec![7; 512]));
        assert!(ata.irq());
        assert_eq!(data(&mut ata, 512), [7; 512]);
    }
    assert_eq!((ata.request().cloned(), ata.read(7)), (None, DRDY | DSC));
    registers(&mut ata, 0xe0, 3, 9_998, 0x20);
    assert_eq!((ata.request().cloned(), ata.read(7), ata.read(1)), (None, DRDY | DSC | ERR, NOT_FOUND));
}

#[test]
fn cylinders_heads_and_sectors() {
    let mut ata = channel();
    registers(&mut ata, 0xa1, 1, 2 << 8 | 5, 0x20);
    assert_eq!(ata.request(), Some(&Request::Read { unit: 0, sector: (2 * 16 + 1) * 63 + 4, count: 1 }));
    ata.finish(Err(()));
    assert_eq!((ata.read(7) & ERR, ata.read(1)), (ERR, UNCORRECTABLE));
    registers(&mut ata, 0xa0, 1, 0, 0x20);
    assert_eq!(ata.read(1), NOT_FOUND, "sectors count from 1");
}

#[test]
fn writing_in_blocks() {
    let mut ata = channel();
    registers(&mut ata, 0xe0, 4, 0, 0xc6);
    registers(&mut ata, 0xe0, 6, 100, 0xc5);
    assert!(!ata.irq(), "no interrupt before the first block");
    for (sector, count) in [(100, 4), (104, 2)] {
        ata.write_data(&vec![9; count * 512]);
        assert_eq!(ata.request(), Some(&Request::Write { unit: 0, sector }));
        assert_eq!(ata.outgoing().len(), count * 512);
        ata.finish(Ok(vec![]));
        assert!(ata.irq());
    }
    assert_eq!(ata.read(7), DRDY | DSC);
    ata.write(7, 0xe7);
    assert_eq!(ata.request(), Some(&Request::Flush { unit: 0 }));
    ata.finish(Ok(vec![]));
    assert_eq!(ata.read(7), DRDY | DSC);
}

#[test]
fn forty_eight_bits() {
    let mut ata = Ata::new([Some(Unit::disk(1 << 33, (16_383, 16, 63), "1".into())), None]);
    ata.write(6, 0xe0);
    for (register, high, low) in [(2, 0, 2), (3, 1, 0x78), (4, 0, 0x56), (5, 0, 0x34)] {
        ata.write(register, high);
        ata.write(register, low);
    }
    ata.write(7, 0x24);
    assert_eq!(ata.request(), Some(&Request::Read { unit: 0, sector: 0x0134_5678, count: 1 }));
    ata.write_control(0x80);
    assert_eq!(ata.read(3), 1);
    ata.write_control(0x04);
    assert_eq!((ata.request(), ata.read_alternate() & BSY), (None, BSY));
    ata.write_control(0x00);
    assert_eq!(ata.read(7), DRDY | DSC);
    ata.write(6, 0x10);
    assert_eq!(ata.read(7), 0, "no second unit");
}

#[test]
fn a_cd_is_read_by_packets() {
    let mut ata = channel();
    ata.write(6, 0x10);
    ata.write(7, 0xec);
    assert_eq!((ata.read(7) & ERR, ata.read(4), ata.read(5)), (ERR, 0x14, 0xeb));
    ata.write(4, 0x00);
    ata.write(5, 0x08);
    ata.write(7, 0xa0);
    ata.write_data(&[0x28, 0, 0, 0, 0, 16, 0, 0, 2, 0, 0, 0]);
    assert_eq!(ata.request(), Some(&Request::ReadCd { unit: 1, block: 16, count: 2 }));
    ata.finish(Ok(vec![5; 4096]));
    for _ in 0..2 {
        assert_eq!((ata.read(2), ata.read(4), ata.read(5)), (2, 0, 8));
        assert_eq!(data(&mut ata, 2048), [5; 2048]);
    }
    assert_eq!((ata.read(2), ata.read(7)), (3, DRDY | DSC));
    ata.set_medium(1, None);
    ata.write(7, 0xa0);
    ata.write_data(&[0; 12]);
    assert_eq!((ata.read(7) & ERR, ata.read(1) >> 4), (ERR, 2), "not ready");
}

#[test]
fn another_unit_is_not_asked_for_the_rest_of_a_command() {
    let mut ata = Ata::new([1_000, 1].map(|sectors| Some(Unit::disk(sectors, (9, 16, 63), "1".into()))));
    registers(&mut ata, 0xe0, 2, 500, 0x20);
    ata.finish(Ok(vec![7; 512]));
    ata.write(6, 0xf0);
    assert_eq!(data(&mut ata, 512), [7; 512]);
    assert_eq!(ata.request(), Some(&Request::Read { unit: 0, sector: 501, count: 1 }));
    ata.finish(Ok(vec![8; 512]));
    assert_eq!(data(&mut ata, 512), [8; 512]);
    ata.write(6, 0xf0);
    assert_eq!(ata.read(6), 0xf0, "at rest it is another matter");
}

#[test]
fn what_a_reset_cut_short_does_not_go_on_later() {
    let mut ata = channel();
    let ask = |ata: &mut Ata, packet: [u8; 12]| {
        ata.write(6, 0x10);
        ata.write(4, 0x00);
        ata.write(5, 0x08);
        ata.write(7, 0xa0);
        ata.write_data(&packet);
    };
    ask(&mut ata, [0x28, 0, 0, 0, 0, 0, 0, 0, 99, 0, 0, 0]);
    assert!(matches!(ata.request(), Some(Request::ReadCd { .. })));
    ata.write_control(4);
    ata.write_control(0);
    ask(&mut ata, [3, 0, 0, 0, 18, 0, 0, 0, 0, 0, 0, 0]);
    data(&mut ata, 18);
    assert_eq!((ata.request().cloned(), ata.read(2)), (None, 3), "the sense data are all");
}

proptest! {
    #[test]
    fn any_commands_ask_only_for_what_is_there(accesses: Vec<(u8, u8)>, fail: bool) {
        let mut ata = channel();
        for (register, value) in accesses {
            match register % 12 {
                0 => ata.write_data(&[value; 64]),
                8 => ata.write_control(value),
                9 => ata.read_data(&mut [0; 700]),
                10 => { ata.read(u16::from(value) % 8); }
                11 => ata.set_medium(1, (value & 1 != 0).then_some(50)),
                register => ata.write(u16::from(register), value),
            }
            match ata.request().cloned() {
                Some(Request::Read { unit, sector, count }) => {
                    prop_assert!(unit == 0 && sector + u64::from(count) <= 10_000);
                    ata.finish(if fail { Err(()) } else { Ok(vec![0; usize::from(count) * 512]) });
                }
                Some(Request::Write { unit, sector }) => {
                    prop_assert!(unit == 0 && sector + ata.outgoing().len() as u64 / 512 <= 10_000);
                    ata.finish(if fail { Err(()) } else { Ok(vec![]) });
                }
                Some(Request::ReadCd { unit, block, count }) => {
                    prop_assert!(unit == 1 && block + u32::from(count) <= 100);
                    ata.finish(if fail { Err(()) } else { Ok(vec![0; usize::from(count) * 2048]) });
                }
                Some(Request::Flush { .. }) => ata.finish(Ok(vec![])),
                None => {}
            }
        }
    }
}
