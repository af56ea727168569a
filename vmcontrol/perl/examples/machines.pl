#!/usr/bin/perl
# Lists the machines of a server with their state; with an action, does it to those that are named.
#
#   machines.pl [-H host] [-O port] [-U user] [start|stop|reset|suspend|answer config...]
#
# The password is read from the environment (VMPASSWORD), so that it does not stand on the command line.
# `answer` takes the suggested choice of a pending question.
use strict;
use warnings;
use Getopt::Long qw(:config bundling);

use VMware::VmPerl;
use VMware::VmPerl::ConnectParams;
use VMware::VmPerl::Server;
use VMware::VmPerl::VM;

my ($host, $port, $user);
GetOptions('H=s' => \$host, 'O=i' => \$port, 'U=s' => \$user)
    or die "usage: $0 [-H host] [-O port] [-U user] [start|stop|reset|suspend|answer config...]\n";
my ($action, @wanted) = @ARGV;
die "$0: no such action: $action\n" if defined $action && $action !~ /^(?:start|stop|reset|suspend|answer)$/;

my $params = VMware::VmPerl::ConnectParams::new($host, $port, $user, $ENV{VMPASSWORD});
my $server = VMware::VmPerl::Server::new();
$server->connect($params) or die complaint('cannot connect', $server);
if (!defined $action) {
    @wanted = $server->registered_vm_names();
    die complaint('cannot list the machines', $server) if !@wanted && $server->get_last_error();
}

my %word = map { VMware::VmPerl::constant("VM_EXECUTION_STATE_$_", 0) => lc } qw(ON OFF SUSPENDED STUCK UNKNOWN);
my $failed = 0;
for my $config (@wanted) {
    my $vm = VMware::VmPerl::VM::new();
    if (!$vm->connect($params, $config) || !work($vm)) {
        warn complaint($config, $vm);
        $failed = 1;
        next;
    }
    my $state = $vm->get_execution_state();
    my $name = $vm->get_config('displayName');
    printf "%-10s %s (%s)\n", defined $state ? $word{$state} : '?', $config, defined $name ? $name : 'no name';
    my $question = $vm->get_pending_question();
    print '           ', $question->get_text(), ' [', join(' | ', $question->get_choices()), "]\n" if $question;
}
exit $failed;

sub work {
    my ($vm) = @_;
    return 1 if !defined $action;
    if ($action eq 'answer') {
        my $question = $vm->get_pending_question();
        return $question ? $vm->answer_question($question, $question->get_default_choice()) : !$vm->get_last_error();
    }
    return $vm->$action(VM_POWEROP_MODE_TRYSOFT);
}

sub complaint {
    my ($what, $object) = @_;
    my ($number, $text) = $object->get_last_error();
    return "$what: VMControl error $number: $text\n";
}
