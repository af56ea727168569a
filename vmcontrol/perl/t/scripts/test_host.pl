#!/usr/bin/perl -w
# In the manner of a test farm's host class: one machine object for the life of the script, made
# before there are parameters; constants by their full names; the error pair fetched after a failure.
use strict;
use VMware::VmPerl;
use VMware::VmPerl::VM;
use VMware::VmPerl::ConnectParams;

{
    package Host;
    my $vm = VMware::VmPerl::VM::new();
    my ($number, $text) = (0, '');

    sub new {
        my ($class, $config, @who) = @_;
        my $params = VMware::VmPerl::ConnectParams::new(@who);
        $vm->connect($params, $config) or ($number, $text) = $vm->get_last_error();
        return bless {}, $class;
    }

    sub error {
        my @last = ($number, $text);
        ($number, $text) = (0, '');
        return @last;
    }

    # 0 when there was nothing to do, 1 when it was started.
    sub start {
        my $state = $vm->get_execution_state();
        if (!defined($state)) {
            ($number, $text) = $vm->get_last_error();
            return $number;
        }
        return 0 if $state != VMware::VmPerl::VM_EXECUTION_STATE_OFF && $state != VMware::VmPerl::VM_EXECUTION_STATE_SUSPENDED;
        if (!$vm->start()) {
            ($number, $text) = $vm->get_last_error();
            return $number;
        }
        while ($vm->get_tools_last_active() == 0) { return 1 }
        return 1;
    }

    sub stop {
        if (!$vm->stop(VMware::VmPerl::VM_POWEROP_MODE_TRYSOFT)) {
            ($number, $text) = $vm->get_last_error();
            return $number;
        }
        return 0;
    }

    sub address {
        my $ip = $vm->get_guest_info('ip');
        ($number, $text) = $vm->get_last_error() if !defined $ip;
        return $ip;
    }
}

my $host = Host->new(@ARGV);
my @error = $host->error;
if ($error[0] != 0) {
    print "connect: @error\n";
    exit 1;
}
print 'start: ', $host->start, "\n";
my $ip = $host->address;
print defined $ip ? "ip: $ip\n" : 'ip: ' . join(' ', $host->error) . "\n";
print 'stop: ', $host->stop, "\n";
print 'again: ', $host->stop, ' ', join(' ', $host->error), "\n";
