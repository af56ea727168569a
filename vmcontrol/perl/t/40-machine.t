# Every method against a machine that really runs.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use File::Basename qw(dirname);
use Test::More;
use Live;

use VMware::VmPerl;

Live::need(qw(VMPERL_ROOT VMPERL_USER VMPERL_MACHINE));
my $config = $ENV{VMPERL_MACHINE};
my $image = dirname($config) . '/boot.img';

my $server = VMware::VmPerl::Server::new();
$server->connect(local_params()) or die join ': ', $server->get_last_error;
$server->register_vm($config) or die join ': ', $server->get_last_error;
my $vm = VMware::VmPerl::VM::new();
$vm->connect(local_params(), $config) or die join ': ', $vm->get_last_error;

# How often the guest has said hello on its serial line: once each time it starts.
sub greetings {
    my $reply = $server->exec("<exec><op>VM_SerialRead</op><in><config>$config</config><port>0</port></in></exec>");
    return scalar(() = $reply =~ /HELLO FROM SECTOR 0/g);
}

# On.
ok_and_clean($vm, $vm->start, 1, 'start');
ok_and_clean($vm, $vm->get_execution_state, VM_EXECUTION_STATE_ON, 'on');
fails($vm, $vm->start(VM_POWEROP_MODE_HARD), VM_E_BADSTATE,
    qr/^Invalid operation for virtual machine's current state: The requested operation \("start"\) could not be completed because it conflicted with the state of the virtual machine \("on"\)/,
    'a second start');
cmp_ok($vm->get_pid, '>', 1, 'its process');
ok(-d '/proc/' . $vm->get_pid, 'which is there');
cmp_ok($vm->get_id, '>', 0, 'its number');
for my $method (qw(get_uptime get_heartbeat get_tools_last_active get_remote_connections)) {
    my $number = $vm->$method;
    like($number, qr/^[0-9]+$/, "$method of a machine that runs");
    is($vm->get_last_error, 0, "$method: no error");
}
fails($server, $server->unregister_vm($config), VM_E_BADSTATE, qr/^Invalid operation/, 'unregistering it');

# Guest variables.
ok_and_clean($vm, $vm->set_guest_info('CIT.NODE', 'a<b>&"'), 1, 'a guest variable');
ok_and_clean($vm, $vm->get_guest_info('cit.node'), 'a<b>&"', 'is read back');
fails($vm, $vm->get_guest_info('none'), VM_E_NOPROPERTY, qr/^No such property/, 'another one');

# Devices.
ok_and_clean($vm, $vm->device_is_connected('floppy0'), 1, 'the floppy is in');
ok_and_clean($vm, $vm->disconnect_device('floppy0'), 1, 'out');
ok_and_clean($vm, $vm->device_is_connected('floppy0'), 0, 'it is out');
ok_and_clean($vm, $vm->connect_device('floppy0'), 1, 'in');
ok_and_clean($vm, $vm->device_is_connected('floppy0'), 1, 'it is in again');
fails($vm, $vm->connect_device('floppy9'), VM_E_NOPROPERTY, qr/^No such property/, 'another device');

# Without Tools in the guest a soft stop cannot be; soft is what is asked for unless it is said.
for my $mode ([], [VM_POWEROP_MODE_SOFT]) {
    fails($vm, $vm->stop(@$mode), VM_E_BADSTATE, qr/Make sure the VMware Server Tools are running/, "stop(@$mode)");
}
is($vm->get_execution_state, VM_EXECUTION_STATE_ON, 'still on');

# Snapshots.
ok_and_clean($vm, $vm->create_snapshot('first', 'of two', 0, 1), 1, 'a snapshot');
ok_and_clean($vm, $vm->create_snapshot, 1, 'one without a name');
ok_and_clean($vm, $vm->has_snapshot, 1, 'there is one');
ok_and_clean($vm, $vm->revert_to_snapshot, 1, 'back to it');
ok_and_clean($vm, $vm->get_execution_state, VM_EXECUTION_STATE_ON, 'on, as it was then');
ok_and_clean($vm, $vm->remove_all_snapshots, 1, 'away with them');
ok_and_clean($vm, $vm->has_snapshot, 0, 'there is none');

# Suspended and back.
ok_and_clean($vm, $vm->suspend(VM_POWEROP_MODE_HARD), 1, 'suspend');
ok_and_clean($vm, $vm->get_execution_state, VM_EXECUTION_STATE_SUSPENDED, 'suspended');
fails($vm, $vm->stop(VM_POWEROP_MODE_HARD), VM_E_BADSTATE, qr/\("suspended"\)/, 'stopping it');
ok_and_clean($vm, $vm->start(VM_POWEROP_MODE_TRYSOFT), 1, 'start again');
ok_and_clean($vm, $vm->get_execution_state, VM_EXECUTION_STATE_ON, 'on');
my $before = greetings();
ok_and_clean($vm, $vm->reset(VM_POWEROP_MODE_HARD), 1, 'reset');
eventually('the guest starts anew', sub { greetings() > $before });

# Off, over a second object; the first one sees it.
{
    my $other = VMware::VmPerl::VM::new();
    $other->connect(local_params(), $config);
    ok_and_clean($other, $other->stop(VM_POWEROP_MODE_TRYSOFT), 1, 'stop');
}
ok_and_clean($vm, $vm->get_execution_state, VM_EXECUTION_STATE_OFF, 'off');
ok_and_clean($vm, $vm->get_pid, 0, 'no process');

# A question: the floppy's image is gone.
rename $image, "$image.away" or die "$image: $!";
fails($vm, $vm->start, VM_E_NEEDINPUT, qr/^Virtual machine requires user input to continue/, 'a start with a question');
ok_and_clean($vm, $vm->get_execution_state, VM_EXECUTION_STATE_STUCK, 'stuck');
my $question = $vm->get_pending_question;
isa_ok($question, 'VMware::VmPerl::Question') or BAIL_OUT('no question');
like($question->get_text, qr/\Q$image\E/, 'it names the file');
is_deeply([ $question->get_choices ], [ 'Retry', 'Cancel' ], 'the choices');
is($question->get_default_choice, 0, 'the one that is suggested');
cmp_ok($question->get_id, '>', 0, 'its number');
fails($vm, $vm->start, VM_E_NEEDINPUT, qr/^Virtual machine requires/, 'starting it meanwhile');
fails($vm, $vm->answer_question($question, 2), VM_E_INVALIDARGS, qr/^Invalid argument/, 'no such choice');
rename "$image.away", $image or die "$image: $!";
ok_and_clean($vm, $vm->answer_question($question, 0), 1, 'retry');
eventually('the start goes on', sub { $vm->get_execution_state == VM_EXECUTION_STATE_ON });
ok_and_clean($vm, $vm->get_pending_question, undef, 'no question any more');
ok_and_clean($vm, $vm->stop(VM_POWEROP_MODE_HARD), 1, 'stop');
undef $vm;
ok_and_clean($server, $server->unregister_vm($config), 1, 'unregister');

done_testing;
