# Scripts in the manner of the published ones, run as programs of their own.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use File::Basename qw(dirname);
use Test::More;
use Live;

use VMware::VmPerl;

Live::need(qw(VMPERL_ROOT VMPERL_PLAIN_PORT VMPERL_USER VMPERL_PASSWORD VMPERL_MACHINE));
my ($config, $port, $user, $password) = @ENV{qw(VMPERL_MACHINE VMPERL_PLAIN_PORT VMPERL_USER VMPERL_PASSWORD)};
my $image = dirname($config) . '/boot.img';

# Runs a script; returns its exit status and what it printed, warnings too.
sub script {
    my ($name, @arguments) = @_;
    my $pid = open my $output, '-|';
    die "fork: $!" if !defined $pid;
    if (!$pid) {
        open STDERR, '>&', \*STDOUT or die;
        exec $^X, '-w', (map { "-I$_" } @INC), "$FindBin::Bin/scripts/$name", @arguments or die "exec: $!";
    }
    my $text = join '', <$output>;
    close $output;
    return ($? >> 8, $text);
}

my @remote = ('-H', '127.0.0.1', '-p', $port, '-U', $user);
my ($status, $text) = script('check_vm_state.pl', @remote, '-P', $password, '-c', $config);
is($status, 2, 'plug-in, a machine that is not registered');
like($text, qr/^CRITICAL: \Q$config\E: -11: No such virtual machine: The config file \Q$config\E is not registered\. Please register/, 'its line');
($status, $text) = script('check_vm_state.pl', '-H', '127.0.0.1', '-p', 1);
is($status, 2, 'plug-in, nobody at the port');
like($text, qr/^CRITICAL: gateway: -2: Network failure: cannot reach vmware-authd on host 127\.0\.0\.1 .*port 1: Connection refused/, 'its line');
($status, $text) = script('check_vm_state.pl', @remote, '-P', $password);
is("$status $text", "0 OK:\n", 'plug-in, no machine at all');
($status, $text) = script('inventory.pl', 'A=1');
is("$status $text", '6 ', 'agent, no machine at all');

rename $image, "$image.away" or die "$image: $!";
($status, $text) = script('manager.pl', $config, $image);
is($text, <<'END', 'manager, from nothing to a machine that is on');
connected to the server
registered
connected to the machine
registered before
start: -16
choices: Retry|Cancel
on
END
is($status, 0, 'manager: status');
($status, $text) = script('manager.pl', $config, $image);
is($text, "connected to the server\nconnected to the machine\nregistered before\non\n", 'manager, a second time');

($status, $text) = script('check_vm_state.pl', @remote, '-P', $password);
is("$status $text", "0 OK: $config is on\n", 'plug-in, all is well');
($status, $text) = script('inventory.pl', 'CIT_NODE_ID=17', 'CIT_VM_CAPACITY=1');
is("$status $text", "0 Perl test/none: 2 facts, cpu all\n", 'agent, a machine that is on');
my $vm = VMware::VmPerl::VM::new();
$vm->connect(local_params(), $config);
is($vm->get_guest_info('CIT_NODE_ID'), 17, 'the guest was told');

($status, $text) = script('test_host.pl', $config);
like($text, qr/\Astart: 0\nip: -10 No such property: ip\nstop: 0\nagain: -8 -8 Invalid operation .*\("off"\).*\n\z/, 'host class');
($status, $text) = script('test_host.pl', "$config.none", '127.0.0.1', $port, $user, $password);
like($text, qr/\Aconnect: -11 No such virtual machine: /, 'host class, no such machine');
($status, $text) = script('check_vm_state.pl', @remote, '-P', $password);
is("$status $text", "2 CRITICAL: $config is off\n", 'plug-in, a machine that is off');
($status, $text) = script('inventory.pl', 'A=1');
is("$status $text", "0 Perl test/none: not on\n", 'agent, a machine that is off');

my $server = VMware::VmPerl::Server::new();
$server->connect(local_params());
ok_and_clean($server, $server->unregister_vm($config), 1, 'unregister');

done_testing;
