#!/usr/bin/perl -w
# In the manner of a monitoring plug-in: modules required and imported at run time, constructors
# called with &, constants by name, one status line, exit 0 or 2 or 3.
use strict;
use Getopt::Std qw(getopts);

require VMware::VmPerl;
import VMware::VmPerl;
require VMware::VmPerl::Server;
require VMware::VmPerl::VM;
require VMware::VmPerl::ConnectParams;
require VMware::VmPerl::Question;

my %option;
getopts('H:U:P:p:c:', \%option);

sub leave {
    my ($status, $text) = @_;
    print join(' ', (qw(OK WARNING CRITICAL UNKNOWN))[$status] . ':', split ' ', $text), "\n";
    exit $status;
}

my $where = &VMware::VmPerl::ConnectParams::new(@option{qw(H p U P)});
my $server = &VMware::VmPerl::Server::new();
if (!$server || !$server->connect($where)) {
    my ($number, $text) = $server->get_last_error();
    leave(2, "gateway: $number: $text");
}

my @configs = defined $option{c} ? $option{c} : $server->registered_vm_names();
if (!@configs) {
    my ($number, $text) = $server->get_last_error();
    leave(3, "list: $number: $text") if $number != 0;
}

my %name_of = map { VMware::VmPerl::constant("VM_EXECUTION_STATE_$_", 0) => lc } qw(ON OFF SUSPENDED STUCK UNKNOWN);
my ($worst, @lines) = (0);
for my $config (@configs) {
    my $vm = VMware::VmPerl::VM::new();
    if (!$vm->connect($where, $config)) {
        my ($number, $text) = $vm->get_last_error();
        leave(2, "$config: $number: $text");
    }
    my $state = $vm->get_execution_state();
    if (!defined($state)) {
        my ($number, $text) = $vm->get_last_error();
        leave(2, "state of $config: $number: $text");
    }
    $worst = 2 unless $state == &VM_EXECUTION_STATE_ON;
    push @lines, "$config is $name_of{$state}";
}
leave($worst, join ', ', @lines);
