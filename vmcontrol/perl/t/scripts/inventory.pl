#!/usr/bin/perl -w
# An inventory agent as they were written: all defaults, the list told from its first element, each
# machine told who it is by guest variables, set again until the answer is 1.
use strict;
use VMware::VmPerl;
use VMware::VmPerl::VM;
use VMware::VmPerl::Server;
use VMware::VmPerl::ConnectParams;

my %facts = map { split /=/, $_, 2 } @ARGV;

my $params = VMware::VmPerl::ConnectParams::new();
my $server = VMware::VmPerl::Server::new();
exit 7 if !$server->connect($params);
my @list = $server->registered_vm_names();
exit 6 if !defined($list[0]);

foreach my $config (@list) {
    my $vm = VMware::VmPerl::VM::new();
    if (!$vm->connect($params, $config)) {
        undef $vm;
        print "WARNING! no connection: $config\n";
        next;
    }
    my $uuid = $vm->get_config("uuid.bios");
    $uuid = "NO UUID" if !defined($uuid);
    my $name = $vm->get_config("displayName");
    $name = "NO NAME" if !defined($name);
    my $capacity = 1;
    if ($vm->get_product_info(VM_PRODINFO_PRODUCT) == VM_PRODUCT_ESX) {
        $capacity = $vm->get_resource("cpu.max") / 100;
    }
    if ($vm->get_execution_state() == VM_EXECUTION_STATE_ON) {
        for my $key (sort keys %facts) {
            my $rc;
            do {
                $rc = $vm->set_guest_info($key, $facts{$key});
            } while ($rc != 1);
        }
        print "told: ${name}_$uuid capacity $capacity\n";
    }
    else {
        print "WARNING: not running: ${name}_$uuid\n";
    }
    undef $vm;
}
undef $server;
exit 0;
