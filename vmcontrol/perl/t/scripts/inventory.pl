#!/usr/bin/perl -w
# In the manner of an inventory agent: all defaults, the list told from its first element, numbers of
# products compared with exported constants, and each machine that is on told facts by guest variables,
# again until the answer is exactly 1. Arguments: key=value.
use strict;
use VMware::VmPerl;
use VMware::VmPerl::VM;
use VMware::VmPerl::Server;
use VMware::VmPerl::ConnectParams;

my @facts = map { [ split /=/, $_, 2 ] } @ARGV;

my $here = VMware::VmPerl::ConnectParams::new();
my $host = VMware::VmPerl::Server::new();
$host->connect($here) or exit 7;
my @paths = $host->registered_vm_names();
exit 6 unless defined $paths[0];

while (defined(my $path = shift @paths)) {
    my $guest = VMware::VmPerl::VM::new();
    unless ($guest->connect($here, $path)) {
        print "$path: no connection\n";
        next;
    }
    my %about = map { $_ => $guest->get_config($_) } qw(displayName uuid.bios);
    my $label = join '/', map { defined $about{$_} ? $about{$_} : 'none' } sort keys %about;
    my $esx = $guest->get_product_info(VM_PRODINFO_PRODUCT) == VM_PRODUCT_ESX;
    my $share = $esx ? $guest->get_resource('cpu.max') : 'all';
    if ($guest->get_execution_state() != VM_EXECUTION_STATE_ON) {
        print "$label: not on\n";
        next;
    }
    for my $fact (@facts) {
        1 until $guest->set_guest_info(@$fact) == 1;
    }
    printf "%s: %d facts, cpu %s\n", $label, scalar @facts, $share;
}
undef $host;
