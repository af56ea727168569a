#!/usr/bin/perl -w
# In the manner of a manager of many machines: registers what is not registered, asks whether
# is_connected() is defined, keeps a connection while it is for the same file, and when a start fails
# looks at the state again and answers the question.
use strict;
use VMware::VmPerl;
use VMware::VmPerl::Server;
use VMware::VmPerl::ConnectParams;
use VMware::VmPerl::VM;
use VMware::VmPerl::Question;

my ($config, $image) = @ARGV;
my ($server, $vm);
my $params = VMware::VmPerl::ConnectParams::new(undef, undef, undef, undef);

sub problem {
    my ($what, $object) = @_;
    my ($number, $text) = $object->get_last_error();
    die "$what ($number: $text)\n";
}

sub server {
    if (!defined($server) || !defined($server->is_connected())) {
        $server = VMware::VmPerl::Server::new();
        problem('no server', $server) if !$server->connect($params);
        print "connected to the server\n";
    }
    return $server;
}

sub register {
    my $status = server()->register_vm($config);
    if (!defined($status)) {
        my ($number, $text) = $server->get_last_error();
        die "register: $number: $text\n" if $text !~ /Virtual machine already exists/;
        print "registered before\n";
        return;
    }
    print "registered\n";
    return;
}

sub machine {
    server();
    return $vm if defined($vm) && $vm->is_connected() && $vm->get_config_file_name() eq $config;
    register() if !grep { $_ eq $config } $server->registered_vm_names();
    $vm = VMware::VmPerl::VM::new();
    problem('no machine', $vm) if !$vm->connect($params, $config);
    print "connected to the machine\n";
    return $vm;
}

# After every call the error is asked for, whatever the call returned.
sub checked {
    my ($what) = @_;
    my ($number) = $vm->get_last_error();
    problem($what, $vm) if $number != 0;
    return;
}

machine();
register();
if (machine()->get_execution_state() == VM_EXECUTION_STATE_OFF) {
    checked('state');
    if (!machine()->start(VM_POWEROP_MODE_SOFT)) {
        my ($number) = $vm->get_last_error();
        print "start: $number\n";
        my $state = machine()->get_execution_state();
        problem('not started', $vm) if $state != VM_EXECUTION_STATE_STUCK;
        my $question = $vm->get_pending_question();
        checked('question');
        my @choices = $question->get_choices();
        print 'choices: ', join('|', @choices), "\n";
        rename "$image.away", $image or die "$image: $!\n";
        my ($retry) = grep { $choices[$_] eq 'Retry' } 0 .. $#choices;
        problem('answer', $vm) if !$vm->answer_question($question, $retry);
    }
}
until (machine()->get_execution_state() == VM_EXECUTION_STATE_ON) { select undef, undef, undef, 0.05 }
checked('on');
print "on\n";
